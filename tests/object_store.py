"""An object store for tests: a real S3 server on loopback."""

import uuid

import pytest

__all__ = ["s3"]


@pytest.fixture
def s3(monkeypatch):
    """The URL of a bucket on a real S3 server."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    # Servers of one process share what they hold.
    bucket = f"kept-by-hins-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    yield f"s3://{bucket}/team"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
