"""The server's answers over HTTP, one router a journey."""
