from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from avrec_spark.errors import DecoderStartError
from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits, Request
from avrec_spark.media.watchdog import Decoder

# A worker that speaks the protocol and does as the file's name says; it also litters both output streams.
ODD_WORKER = """
import os, sys, time
from avrec_spark.media.records import DecodedMedia, MediaInfo
from avrec_spark.media.worker import serve

def answer(request, limits):
    path = request.uri
    os.write(1, b"noise on the standard output")
    os.write(2, b"noise on the standard error")
    if "hang" in path:
        time.sleep(600)
    if "die" in path:
        os._exit(7)
    return DecodedMedia(MediaInfo(container=path, bit_rate=os.getpid()))

serve(answer)
"""


@pytest.fixture
def odd_worker(tmp_path: Path) -> list[str]:
    script = tmp_path / "odd_worker.py"
    script.write_text(ODD_WORKER)
    return [sys.executable, str(script)]


def test_the_child_gives_what_decoding_in_the_process_gives(make_clip, limits):
    path = str(make_clip(colours=((200, 30, 30), (30, 40, 200)), seconds=4, gop=20))
    expected = decode(Request(path), limits)
    with Decoder(limits) as decoder:
        media = decoder.decode(Request(path))

    assert media.info == expected.info and media.shots == expected.shots
    np.testing.assert_array_equal(media.frames.pictures, expected.frames.pictures)
    np.testing.assert_array_equal(media.sound.samples, expected.sound.samples)


def test_one_child_serves_many_files_and_ends_with_the_decoder(limits, odd_worker):
    with Decoder(limits, odd_worker) as decoder:
        assert decoder.pid is None
        children = {decoder.decode(Request(name)).info.bit_rate for name in ("a", "b", "c")}
        assert children == {decoder.pid}
    (child,) = children
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_libraries_print_does_not_disturb_the_answers(limits, odd_worker):
    with Decoder(limits, odd_worker) as decoder:
        assert [decoder.decode(Request(name)).info.container for name in ("a", "b")] == ["a", "b"]


def test_a_hang_becomes_a_timeout_and_the_next_file_gets_a_new_child(odd_worker):
    with Decoder(Limits(timeout_seconds=0.5), odd_worker) as decoder:
        first = decoder.decode(Request("a")).info.bit_rate
        media = decoder.decode(Request("hang"))
        assert (media.status, media.reason, media.retryable) == ("timeout", "timeout", True)
        assert "0.5 s" in media.detail and media.seconds_spent >= 0.5
        assert decoder.decode(Request("b")).info.bit_rate not in (first, None)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_crash_becomes_a_status_and_the_next_file_gets_a_new_child(limits, odd_worker):
    with Decoder(limits, odd_worker) as decoder:
        media = decoder.decode(Request("die"))
        assert (media.status, media.reason, media.retryable) == ("corrupt", "decoder_crashed", True)
        assert "exit code 7" in media.detail
        assert decoder.decode(Request("b")).status == "ok"


def test_a_child_killed_while_in_use_becomes_a_status(limits, odd_worker):
    with Decoder(limits, odd_worker) as decoder:
        decoder.decode(Request("a"))
        threading.Timer(0.3, os.kill, (decoder.pid, signal.SIGKILL)).start()
        media = decoder.decode(Request("hang"))
        assert (media.status, media.reason) == ("corrupt", "decoder_crashed")
        assert "signal 9" in media.detail


def test_a_child_that_died_between_two_files_is_not_held_against_the_second(limits, odd_worker):
    with Decoder(limits, odd_worker) as decoder:
        decoder.decode(Request("a"))
        os.kill(decoder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, decoder.pid, os.WEXITED | os.WNOWAIT)
        assert decoder.decode(Request("b")).status == "ok"


def test_a_worker_that_cannot_start_is_an_error_and_not_the_fault_of_a_file(limits):
    with pytest.raises(DecoderStartError, match="exit code 3"):
        Decoder(limits, [sys.executable, "-c", "raise SystemExit(3)"]).decode(Request("a"))
    with pytest.raises(DecoderStartError, match="No such file"):
        Decoder(limits, ["/nonexistent/python"]).decode(Request("a"))


def test_a_daemonic_process_can_use_the_decoder_as_a_spark_worker_does(tmp_path, make_clip):
    script = tmp_path / "daemonic.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from avrec_spark.media.records import Limits, Request\n"
        "from avrec_spark.media.watchdog import Decoder\n"
        "def work():\n"
        "    with Decoder(Limits()) as decoder:\n"
        "        print(decoder.decode(Request(sys.argv[1])).status)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.Process(target=work, daemon=True)\n"
        "    process.start(); process.join()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), str(make_clip(seconds=1))]
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)

    assert result.stdout.strip() == "ok", result.stderr


def test_the_child_imports_neither_torch_nor_spark():
    code = (
        "import sys, avrec_spark.media.worker; print([m for m in ('torch', 'pyspark', 'librosa') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
