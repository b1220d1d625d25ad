"""A FastAPI service that needs the catalogue from its first request on."""

from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException

from bundler.component import Load
from catalogue.vendor import Catalogue


@asynccontextmanager
async def lifespan(app: FastAPI):
    with Load(Path(__file__).parent / "state") as load:
        app.state.products = load.build_defs(Catalogue())
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/products/{identity}")
def product(identity: str) -> dict:
    if identity not in app.state.products:
        raise HTTPException(404)
    return app.state.products[identity]
