"""Folders replaced as a whole: the old or the new is there. Door: `swap`.

Of the standard library only. Datasets, reports, bundles and exports are all
replaced by these steps, so `mtnet_jax` imports them, too, when it writes.

What is new is written in a hidden folder beside its place, or further up on the
same disk (`staged.py`). Then `swap.replace` renames the old one, to
`.NAME.mtnet_jax-old` beside it, and the new one to its place, and removes the
old one. A failure between the two renames is undone at once. After a kill, the
next process undoes it: a reader by `swap.mend`, a writer before it begins.

Whoever stages holds a lock (flock) on a file, which the system drops when the
process ends: a folder whose lock can be taken has no owner, and is removed. The
two renames, and their mending, are done under a lock of the parent folder. On a
filesystem without locks nothing is taken for left over; if a reader mends there
between the renames of a living writer, then that one fails, and the old stays.
"""
