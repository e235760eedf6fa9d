"""Secrets go in wherever one can, and are then looked for wherever anything comes out."""
