"""One module per gRPC service. The only code, with the app, that imports grpc; status codes are decided in `edge`."""
