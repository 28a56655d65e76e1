"""The page and the JSON interface over one index: ``regionvlp serve``.

``settings``  what a server may do for whom
``desk``      the opened index: one search at a time, the last answers remembered, opened anew when it has grown
``pictures``  frames and cut clips, decoded in processes that may die
``files``     the videos themselves: those that the index names, and no others
``guard``     who is let in, how often, and what every answer carries; ``metrics`` counts it
``schema``    what the JSON looks like; ``cards`` what the page shows of an answer
``routes``    addresses; ``app`` puts it together; ``run`` listens

The page is one HTML document without any file of its own beside it: ``page.html.j2`` with its style and script.
"""
