import subprocess
import sys
from dataclasses import replace

import psutil

from pipeline.plumbing.process import Process


def test_this_process_is_alive_and_survives_writing():
    current = Process.current()
    assert not current.gone
    assert Process.parse(str(current)).is_current


def test_an_ended_process_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(Process.current(), pid=child.pid, started=psutil.Process(child.pid).create_time())
    assert not process.gone
    child.communicate()
    assert process.gone


def test_a_process_id_given_to_another_is_gone():
    assert replace(Process.current(), started=Process.current().started - 100).gone


def test_nothing_is_known_of_other_machines():
    assert not Process("elsewhere", 2**22 + 1, 0.0).gone


def test_other_text_is_no_process():
    assert Process.parse("") is None
    assert Process.parse("host x y") is None
