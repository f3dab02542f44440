"""Judges a controller by what the API server wrote down of it. Nothing here knows which controller it is.

``profile`` says how a controller shows itself, ``world`` folds the records into objects, each rule of
``rules`` looks for one kind of harm, and ``check`` carries them through a log.
"""
