# shellcheck shell=sh
# A root shell that was left open at the console ends after a quarter of an hour.
TMOUT=900
export TMOUT
