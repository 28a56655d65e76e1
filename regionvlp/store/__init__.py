"""A folder that survives anything: whole files, claims, receipts, a plan, and what mends it.

::

    FOLDER/manifest.json       what all shards have in common                    manifest.py
    FOLDER/plan.parquet        which video belongs to which shard                plan.py
    FOLDER/shard-00000.*       the data, which nothing here ever looks into
    FOLDER/shard-00000.json    its receipt: without one a shard does not exist   receipts.py
    FOLDER/.claims/            who is at work on what                            claims.py
    FOLDER/set-aside/          what was taken out; never read                    repair.py, recovery.py

Nothing here knows what data files hold. A kind of folder (regions: :mod:`regionvlp.shards`) says so in two small
classes, and everything else works for it as it is:

- its manifest derives from :class:`.manifest.BaseManifest`: what the folder is called, the suffixes of its data files,
  its schema version, and the fields that make its shards mixable. Every worker begins with ``create_or_check``;
- its receipt derives from :class:`.receipts.BaseReceipt` and adds what it counts (``COUNTS``) and who made it.

A worker takes a claim on a shard, writes its data under a temporary name (:mod:`.files`), and within
``claim.publishing()`` gives it the name ``manifest.data_name(number)`` and then calls ``receipt.write_first``. Between
runs ``set_lost_aside`` and ``tidy`` mend what died, ``set_faults_aside`` what a verification finds, and ``summarise``
counts.
"""
