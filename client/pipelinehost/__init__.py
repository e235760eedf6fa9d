"""What users of PipelineHost import."""
