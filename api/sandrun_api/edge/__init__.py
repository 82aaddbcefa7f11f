"""Everything between a client's connection and the application: sockets, TLS, HTTP parsing, rejections."""
