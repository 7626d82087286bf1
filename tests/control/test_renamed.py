"""A node that people watch gets another name: their links and their sessions go on."""

from pathlib import Path

import httpx

from tests.control.running import Opened, in_run

GRAPH = """\
serve: {listen: "127.0.0.1:0"}
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 10}
  encode: {type: hw-encode, from: pattern, bitrate: 200k}
  out: {type: webrtc-out, from: encode}
"""
OFFER = (Path(__file__).parent.parent / "proto" / "offers" / "chromium.sdp").read_text()
SDP = {"Content-Type": "application/sdp"}


async def save(there: Opened, text: str) -> dict[str, str]:
    """Saves the graph and gives what became of each node."""
    there.file.write_text(text)
    patch = (await there.post("/reload"))["patch"]
    return {each["node"]: each["effect"] for each in patch["changes"]}


def test_links_and_sessions_go_on_under_the_old_name_and_new_ones_have_the_new(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        (link,) = there.run.links
        async with httpx.AsyncClient(base_url=link) as http:
            session = await http.post("/out/whep", content=OFFER, headers=SDP)
            assert (session.status_code, session.headers["location"][:10]) == (201, "/out/whep/")
            location, tag = session.headers["location"], session.headers["etag"]
            effects = await save(there, GRAPH.replace("  out: {", "  wall: {was: out, "))
            assert effects["wall"] == "changed in place"
            assert (await there.get("/status"))["nodes"].keys() == {"pattern", "encode", "wall"}
            assert there.run.mounts.pages == ("/wall/",)
            assert (await http.get("/wall/")).status_code == 200
            assert (await http.get("/")).headers["location"] == "/wall/"

            for method in ("GET", "HEAD", "POST"):
                answer = await http.request(method, "/out/whep?muted=1")
                assert (answer.status_code, answer.headers["location"]) == (307, "/wall/whep?muted=1")
            for path in ("/out", "/out/"):
                assert (await http.get(path)).headers["location"] == "/wall/"

            options = await http.options(location)
            assert (options.status_code, options.headers["accept-patch"]) == (204, "application/trickle-ice-sdpfrag")
            trickle = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": tag}
            assert (await http.patch(location, content="a=end-of-candidates\r\n", headers=trickle)).status_code == 204
            assert (await http.delete(location)).status_code == 200

            another = await http.post("/out/whep", content=OFFER, headers=SDP, follow_redirects=True)
            assert (another.status_code, another.headers["location"][:11]) == (201, "/wall/whep/")

    in_run(tmp_path, main, GRAPH)


def test_a_page_of_another_origin_is_answered_under_the_old_name(tmp_path: Path) -> None:
    """A redirect would have to admit it, and no preflight is followed."""
    graph = GRAPH.replace("from: encode}", "from: encode, origins: ['https://example.org']}")

    async def main(there: Opened) -> None:
        (link,) = there.run.links
        await save(there, graph.replace("  out: {", "  wall: {was: out, "))
        other = {"Origin": "https://example.org"}
        async with httpx.AsyncClient(base_url=link) as http:
            asked = await http.options("/out/whep", headers={**other, "Access-Control-Request-Method": "POST"})
            assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "https://example.org")
            session = await http.post("/out/whep", content=OFFER, headers={**SDP, **other})
            assert (session.status_code, session.headers["location"][:11]) == (201, "/wall/whep/")
            assert session.headers["access-control-allow-origin"] == "https://example.org"
            own = await http.get("/out/about", headers={"Origin": link.rstrip("/")})
            assert (own.status_code, own.headers["location"]) == (307, "/wall/about")

    in_run(tmp_path, main, graph)


def test_an_old_name_leads_on_until_another_node_takes_it(tmp_path: Path) -> None:
    def named(name: str, was: str = "") -> str:
        return GRAPH.replace("  out: {", f"  {name}: {{{f'was: {was}, ' if was else ''}")

    async def main(there: Opened) -> None:
        (link,) = there.run.links
        async with httpx.AsyncClient(base_url=link) as http:

            async def leads(path: str) -> str | int:
                answer = await http.get(path)
                return answer.headers.get("location") or answer.status_code

            await save(there, named("wall", "out"))
            await save(there, named("screen", "wall"))
            assert [await leads(f"/{name}/about") for name in ("out", "wall", "screen")] == [
                "/screen/about",
                "/screen/about",
                200,
            ]
            both = named("screen", "wall") + "  out: {type: webrtc-out, from: encode, title: Another}\n"
            await save(there, both)
            assert (await http.get("/out/about")).json()["title"] == "Another"
            await save(there, named("screen"))
            assert [await leads(f"/{name}/about") for name in ("out", "wall", "screen")] == [404, "/screen/about", 200]
            await save(there, named("wall", "screen"))
            assert [await leads(f"/{name}/about") for name in ("wall", "screen")] == [200, "/wall/about"]

    in_run(tmp_path, main, GRAPH)
