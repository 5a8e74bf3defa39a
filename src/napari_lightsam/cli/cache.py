"""`lightsam cache`: the embeddings that are kept on this computer."""

from typing import Annotated

import typer

from napari_lightsam.cli.report import reported


@reported
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all embeddings.")] = False,
) -> None:
    """Show where embeddings are kept and how much room they take, or remove them.

    Models are not touched. LIGHTSAM_EMBEDDINGS_GIB limits the room.
    """
    from napari_lightsam.engine.store import EmbeddingStore

    store = EmbeddingStore()
    if clear:
        typer.echo(f"Removed {store.shrink(0) / 2**20:,.1f} MiB of embeddings from {store.folder}.")
        return
    entries = store.entries()
    used = sum(size for _, size, _ in entries)
    many = "embedding" if len(entries) == 1 else "embeddings"
    room = f"{used / 2**20:,.1f} MiB of at most {store.limit / 2**30:,.1f} GiB"
    typer.echo(f"{store.folder}: {len(entries)} {many}, {room}")
