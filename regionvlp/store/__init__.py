"""A folder that survives anything: whole files, claims, receipts, a plan, and what mends it.

Nothing here knows what the files hold; regions and cached frames are told apart by whoever writes them."""
