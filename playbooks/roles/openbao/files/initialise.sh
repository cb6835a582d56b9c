# initialise.sh FILE INITIALISED EXEC...: initialises OpenBao and keeps the answer in FILE. Status 3: the answer is lost.
# The answer goes straight into a file beside FILE, so that a kill in between loses nothing that had arrived.
set -eu
umask 077
file=$1 initialised=$2
shift 2
whole() { [ -s "$1" ] && python3 -c 'import json, sys; json.load(open(sys.argv[1]))["recovery_keys_b64"]' "$1" 2>/dev/null; }
if [ "$initialised" = true ]; then
  [ -s "$file" ] && exit 0
  whole "$file.new" || exit 3
else
  rm -f "$file.new"   # from another server, or from an attempt that did not reach this one
  "$@" bao operator init -recovery-shares=1 -recovery-threshold=1 -format=json >"$file.new"
  sync "$file.new"
fi
mv "$file.new" "$file"
echo initialised
