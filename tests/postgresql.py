"""A place of one's own in the tests' PostgreSQL server."""

import sqlalchemy as sa


def postgresql_schema(server: str, name: str) -> str:
    """Make a schema and return the URL that works in it: a database each would be hundreds of files each."""
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    admin.dispose()
    return url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
