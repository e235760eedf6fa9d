"""The host of PipelineHost: configures pipelines, deploys solutions, keeps the record."""
