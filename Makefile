PROTOC = .venv/bin/python -m grpc_tools.protoc -I protos
PROTOS = $(wildcard protos/pipelinehost/v1/*.proto)
SERVICES = protos/pipelinehost/v1/pipeline_host.proto protos/pipelinehost/v1/artifacts.proto

.PHONY: protos
protos:
	$(PROTOC) --python_out=client --pyi_out=client $(PROTOS)
	$(PROTOC) --grpc_python_out=client --plugin=protoc-gen-mypy_grpc=.venv/bin/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:client $(SERVICES)
