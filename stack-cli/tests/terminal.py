"""Runs a program in a pseudo-terminal and types at it.

terminal.py PROGRAM COUNT ARGUMENT… [WAIT KEYS]…: when the screen has shown WAIT (after what was waited for before), KEYS are typed.
Prints all that the screen was sent, and ends as the program did.
"""

import fcntl
import os
import pty
import struct
import sys
import termios

program, count = sys.argv[1], int(sys.argv[2])
arguments, script = sys.argv[3 : 3 + count], sys.argv[3 + count :]
steps = list(zip(script[::2], script[1::2]))

pid, terminal = pty.fork()
if pid == 0:
    # Before the program begins, which may ask for it at once.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    os.execv(program, [program, *arguments])

screen, seen = b"", 0
while True:
    try:
        read = os.read(terminal, 4096)
    except OSError:  # Linux says so when the program has ended
        break
    if not read:
        break
    screen += read
    if b"\x1b[6n" in read:  # where the cursor is: a terminal answers
        os.write(terminal, b"\x1b[1;1R")
    while steps and (at := screen.find(steps[0][0].encode(), seen)) >= 0:
        seen = at + len(steps[0][0])
        os.write(terminal, steps.pop(0)[1].encode())
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(screen)
sys.exit(os.waitstatus_to_exitcode(status))
