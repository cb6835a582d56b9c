# good.sh CA SECONDS ALT_NAMES <BASE64: status 0 if the CA signed it, it lasts that long and carries the names.
set -eu
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
base64 -d >"$dir/crt"
[ -s "$dir/crt" ] || exit 1
openssl verify -CAfile "$1" "$dir/crt" >/dev/null 2>&1 || exit 1
openssl x509 -in "$dir/crt" -noout -checkend "$2" >/dev/null || exit 1
have=$(openssl x509 -in "$dir/crt" -noout -ext subjectAltName | tail -n +2 | sed 's/IP Address:/IP:/g; s/ //g')
[ "$have" = "$3" ] || exit 1
