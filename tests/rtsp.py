"""A small RTSP camera on loopback, for tests: H.264 over RTP, interleaved with RTSP on one TCP connection.

As much of RFC 2326 (RTSP), RFC 3550 (RTP) and RFC 6184 (H.264 over RTP, one NAL unit a packet) as a player
needs that asks for TCP.
"""

import re
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import av
import numpy as np
from numpy.typing import NDArray

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
)


@contextmanager
def rtsp_camera(frames: Sequence[NDArray[np.uint8]], *, showings: int = 10**9) -> Iterator[str]:
    """The address of a camera that shows (H, W, 3) uint8 frames again and again, fifty a second. It ends each
    connection after so many showings."""
    units = _encoded(frames)
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while not over.is_set() and (lines := self._request()):
                method = lines[0].split(" ")[0]
                number = next(line for line in lines if line.lower().startswith("cseq"))
                more, body = "Session: 1\r\n", ""
                if method == "DESCRIBE":
                    more, body = "Content-Type: application/sdp\r\n", _SDP
                elif method == "SETUP":
                    more += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                elif method == "OPTIONS":
                    more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                head = f"RTSP/1.0 200 OK\r\n{number}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
                self.wfile.write((head + body).encode())
                if method == "PLAY":
                    with suppress(OSError):
                        self._play()
                    return

        def _request(self) -> list[str]:
            lines: list[str] = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return []
                lines.append(line)
            return lines

        def _play(self) -> None:
            number = 0
            for frame in range(showings * len(units)):
                if over.wait(0.02):
                    return
                unit = units[frame % len(units)]
                for place, nal in enumerate(unit):
                    last = 0x80 if place == len(unit) - 1 else 0
                    packet = struct.pack("!BBHII", 0x80, 96 | last, number & 0xFFFF, 1800 * frame, 1) + nal
                    self.wfile.write(b"$\x00" + struct.pack("!H", len(packet)) + packet)
                    number += 1

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/camera"
        finally:
            over.set()
            server.shutdown()


def _encoded(frames: Sequence[NDArray[np.uint8]]) -> list[list[bytes]]:
    """Each frame's NAL units; every frame stands by itself."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.gop_size = 50, 1
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "crf": "23"}
    packets = []
    for frame in frames:
        packets += encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
    packets += encoder.encode(None)
    return [[nal for nal in re.split(rb"\x00\x00\x00?\x01", bytes(packet)) if nal] for packet in packets]
