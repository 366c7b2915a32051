"""The way to the server: who this device is, and the MQTT session."""
