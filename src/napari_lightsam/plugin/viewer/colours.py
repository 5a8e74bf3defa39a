"""Colours of our layers, of the palette by Okabe and Ito: told apart with every kind of colour vision."""

BLUE = "#0072B2"
"""Positive prompts."""

ORANGE = "#E69F00"
"""Negative prompts."""

GREEN = "#009E73"
"""Areas that are drawn, and the work region."""

PURPLE = "#CC79A7"
"""One typical object, which is neither a positive nor a negative prompt."""

SKY = "#56B4E9"
"""What is pointed out or clicked on a result; seen on dark images and on the preview's yellow."""

YELLOW = (0.94, 0.89, 0.26, 1.0)
"""Outlines that are not saved yet."""
