# keep_seal_key.sh FILE COMMAND...: writes the command's base64 output, decoded, to FILE: whole or not at all.
set -eu
umask 077
file=$1
shift
"$@" | base64 -d >"$file.new"
[ "$(wc -c <"$file.new")" = 32 ]
mv "$file.new" "$file"
