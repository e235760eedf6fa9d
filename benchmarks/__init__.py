"""What PipelineHost costs, as ratios to the least that anybody could do: ``python -m benchmarks [NAME …]``."""
