"""Models of pictures and sentences in one space, by their name on the Hub or their folder.

``files``         where a model's files come from, which revision they are, and a bundle of them for elsewhere
``base``          what every such model offers: vectors of pictures, boxes and sentences
``framing``       where a box of a frame lies on the square that a model sees
``tokens``        how patch tokens come into the joint space, one by one or by boxes
``open_clip_model``, ``transformers_model``   the two public layouts
``opening``       from a name to the model

Nothing is looked up that is not named, and no code of a repository is ever run.
"""
