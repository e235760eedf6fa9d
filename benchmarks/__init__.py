"""What PipelineHost costs, beside the least that anybody could do: ``python -m benchmarks [NAME …]``."""
