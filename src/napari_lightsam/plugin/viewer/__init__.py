"""Napari's viewer and layers as this plugin needs them: axes, places, names, colours; knows no model."""
