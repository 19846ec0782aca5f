"""A client of the service: the answers of `service.answers`, asked for over HTTP.

    with Client("http://127.0.0.1:8421") as service:
        job = service.start_run("first", config)
        for event in service.events("first", until="ended"):
            print(event.name, event.facts)
        print(service.wait(job).state, service.export("first").verdict)

`AsyncClient` has the same methods to be awaited. Every failure is a `ServiceError`.
"""

from service.client.acting import Client
from service.client.awaited import AsyncClient
from service.client.errors import NoService, ServiceError

__all__ = ["AsyncClient", "Client", "NoService", "ServiceError"]
