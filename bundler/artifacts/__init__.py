"""Artifacts: what ships the state. One module a kind; each embeds state and reads it back.

A kind offers two things:

- an `Artifact`, opened for reading: its claims, its run record, and every state directory in it;
- a `bundler.artifacts.embedding.Destination`, which makes the artifact with the bundles in it, and
  leaves what was there before untouched until the new one is whole and verified.

Reading never trusts: an `Artifact` reports what is there, `bundler.artifacts.verify` judges it.
"""
