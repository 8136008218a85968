"""Where user code runs: one interface, an implementation per runtime.

Kept empty: the wrapper of a run (:mod:`kaos.runtime.wrapper`) passes through here at every start.
"""
