"""A module for each kind of artifact that ``state-bundler build`` makes.

find the projects  ->  refuse what cannot succeed  ->  prepare  ->  build and embed  ->  verify
"""
