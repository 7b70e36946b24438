"""Replaces folders as a whole: old or new, never a mixture. Start with `swap`.

It uses the standard library only. Datasets, reports, bundles and exports are
all replaced in these steps, so `mtnet_jax` also imports it to write.

A new folder is written in a hidden staging folder beside its target, or further
up on the same disk (`staged.py`). Then `swap.replace` renames the old folder to
`.NAME.mtnet_jax-old` beside it, renames the new folder to the target, and
removes the old one. A failure between the two renames is undone immediately. If
the process is killed between them, another process undoes it: a reader with
`swap.mend`, or the next writer before it starts.

A process that stages holds a lock (flock) on a file, which the system releases
when the process ends. A staging folder whose lock is free has no owner and is
removed. The two renames, and their repair, happen under a lock of the parent
folder. On a file system without locks, nothing counts as left over. If a reader
there repairs between the two renames of a running writer, the writer fails and
the old folder stays.
"""
