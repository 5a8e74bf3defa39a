"""The dock widget, a section for each feature: the only modules that know Qt."""
