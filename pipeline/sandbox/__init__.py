"""A made-up organization served over real HTTP on loopback: what the pipeline is tried and demonstrated against.

Nothing else of the pipeline is used here but the table of kinds and the error tree, so that the right answers
(`World.answers`) are worked out independently of the code that they check.
"""
