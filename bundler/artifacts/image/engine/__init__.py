"""Images in a Docker engine: build them with the user's own docker, embed, read back, name.

`bundler.artifacts.image.engine.building` runs docker's own build; all else is here.
"""
