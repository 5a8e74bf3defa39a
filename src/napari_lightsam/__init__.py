"""Lightweight Segment Anything for microscopy."""
