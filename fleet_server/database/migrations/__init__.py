"""How the tables come to be and change, in order; run by :func:`fleet_server.database.schema.upgrade`."""
