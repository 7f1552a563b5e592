"""ssh/forward.py with a web application that was not written here: Shiny on a node, in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser import browser_page

from ppe_jupyter import errors
from ppe_jupyter.node.wire.relay import Refused
from ppe_jupyter.ssh.forward import Forward

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.ssh import Connection

PORT = 3838
RELAY = f"exec python3 ~/.ppe/node relay tcp:127.0.0.1:{PORT}"
APP = f"""
library(shiny)
runApp(shinyApp(
  fluidPage(numericInput("n", "How many", 3), textOutput("sum"), plotOutput("plot"), fileInput("file", "File"),
            textOutput("size"), downloadButton("get", "Get")),
  function(input, output) {{
    output$sum <- renderText(paste("sum:", sum(seq_len(input$n))))
    output$plot <- renderPlot(plot(seq_len(input$n)))
    output$size <- renderText(if (!is.null(input$file)) paste("bytes:", input$file$size))
    output$get <- downloadHandler("numbers.txt", function(path) writeLines(as.character(seq_len(1e6)), path))
  }}), port = {PORT}, host = "127.0.0.1", launch.browser = FALSE)
"""


def test_a_far_end_that_cannot_run_is_an_error(cluster: Cluster) -> None:
    async def run() -> None:
        for command, said in (
            ("exec python3 /no/such.py", "No such file"),
            ("echo This is what a start-up file prints; sleep 60", "not of the protocol"),
            ("exit 3", "was cut"),
        ):
            with pytest.raises(errors.RemoteCommandFailed, match=f"does not answer: .*{said}"):
                await Forward.open(cluster.ssh(), command, timeout=30)

    asyncio.run(run())
    assert cluster.ssh().alive


def test_a_port_where_nothing_listens_is_refused(cluster: Cluster) -> None:
    async def run() -> None:
        forward, hello = await Forward.open(cluster.ssh(), RELAY.replace(str(PORT), "9"), timeout=30)
        assert hello == {}
        reader: asyncio.StreamReader = asyncio.StreamReader()
        with pytest.raises(Refused, match="Connect call failed"):
            await forward.carry(reader, None, first=b"GET / HTTP/1.1\r\n\r\n")  # type: ignore[arg-type]
        await forward.close()
        with pytest.raises(Refused):
            await forward.carry(reader, None)  # type: ignore[arg-type]

    asyncio.run(run())


@contextlib.contextmanager
def forwarded(connection: Connection, command: str) -> Iterator[int]:
    """A port of this machine, behind which is the far end's address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Forward, asyncio.Server]:
        forward, _ = await Forward.open(connection, command, timeout=60)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(Refused, OSError):
                await forward.carry(reader, writer)
            writer.close()

        return forward, await asyncio.start_server(handle, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        await forward.close()
        await asyncio.sleep(0.1)

    forward, server = asyncio.run_coroutine_threadsafe(start(), loop).result(90)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture
def shiny(manager: Manager) -> Iterator[Cluster]:
    """A node with Debian's Shiny, whose application listens on its loopback address only."""
    import ppe_jupyter as ppe

    spec = ppe.ClusterSpec(name="shiny", nodes=1, instance_type="m5.large", apt_packages=("r-cran-shiny",))
    cluster = manager.launch(spec)
    cluster.ssh().run("cat > app.R", stdin=APP.encode())
    cluster.ssh().run("setsid Rscript app.R >app.log 2>&1 </dev/null &")
    deadline = time.monotonic() + 60
    while b"Listening on" not in (log := cluster.ssh().run("cat app.log").stdout):
        assert time.monotonic() < deadline, log
        time.sleep(0.2)
    yield cluster
    cluster.terminate()


@pytest.mark.slow
def test_shiny_in_a_browser(shiny: Cluster) -> None:
    with forwarded(shiny.ssh(), RELAY) as port, browser_page() as page:
        from playwright.sync_api import expect

        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#sum")).to_have_text("sum: 6", timeout=60_000)
        page.get_by_label("How many").fill("100")
        expect(page.locator("#sum")).to_have_text("sum: 5050", timeout=30_000)
        expect(page.locator("#plot img")).to_be_visible(timeout=30_000)
        big = {"name": "big.bin", "mimeType": "application/octet-stream", "buffer": bytes(4_000_000)}
        page.locator("#file").set_input_files(big)
        expect(page.locator("#size")).to_have_text("bytes: 4000000", timeout=60_000)
        with page.expect_download(timeout=60_000) as download:
            page.get_by_role("link", name="Get").click()
        assert download.value.path().read_text().split()[-1] in ("1000000", "1e+06")
