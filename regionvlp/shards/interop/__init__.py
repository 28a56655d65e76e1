"""Features that others made come in, ours go out, and a format becomes another.

``regionvlp shards import-npz``, ``import-butd``, ``export-npz`` and ``convert`` are the commands. Features of your own
are written in ten lines, a shard at a time; what :func:`~regionvlp.shards.open_shards` opens then is a folder like any
other::

    from pathlib import Path
    import numpy as np
    from regionvlp.regions import FrameRegions, VideoRegions
    from regionvlp.shards import Manifest, ShardWriter

    mine = Manifest(format="hdf5", dtype="float16", frames=8, regions=30, feature_width=512, shard_size=512,
                    detector={"name": "my-detector"}, video={"reader": "mine"})
    mine = Manifest.create_or_check(Path("features"), mine)
    with ShardWriter(Path("features"), 0, mine) as shard:
        found = FrameRegions(features=np.ones((1, 512), np.float32), boxes=np.array([[0, 0, 9, 9]], np.float32),
                             scores=np.ones(1, np.float32), class_ids=np.zeros(1, np.int32),
                             attribute_ids=np.full(1, -1, np.int32), attribute_scores=np.zeros(1, np.float32))
        shard.add(VideoRegions.from_frames("a.mp4", [found], frame_index=[0], frame_time=[0.0], image_size=[(60, 80)],
                                           slots=30))
        shard.finish()

Parquet shards open in anything that reads Parquet, one row a video. Frame ``k`` is the column ``features_k``, the bytes
of R x C numbers (null past the last frame); ``boxes`` are F x R x 4 numbers in a row, ``scores``, ``class_ids`` and the
attributes F x R, ``num_regions``, ``frame_index`` and ``frame_time`` F, ``image_size`` F x 2. With pandas::

    import numpy, pandas
    table = pandas.read_parquet("shard-00000.parquet", columns=["video_id", "num_frames", "boxes", "features_0"])
    first = numpy.frombuffer(table.features_0[0], "<f2").reshape(30, 512)  # R x C of the manifest; "<f4" for float32
"""
