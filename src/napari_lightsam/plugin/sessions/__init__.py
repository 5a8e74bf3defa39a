"""The work of a viewer: saved by itself and when asked, opened again, replayed."""
