"""Who does something in a test."""

from fleet_server.access.roles import Actor

SOMEBODY = Actor("kim", "operator", "192.0.2.7")
