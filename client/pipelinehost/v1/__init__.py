"""Generated from ``protos/pipelinehost/v1`` by ``make protos``; never edited."""
