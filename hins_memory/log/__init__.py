"""The interaction log: schema, migrations, reader and writer."""
