# make.sh CA CA_KEY DAYS ALT_NAMES NAMESPACE NAME: prints a TLS Secret with a new key. Nothing touches a disk.
set -eu
umask 077
dir=$(mktemp -d /dev/shm/certificate.XXXXXX)
trap 'rm -rf "$dir"' EXIT
name=${4%%,*}
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/key" -subj "/CN=${name#*:}" -out "$dir/csr" 2>/dev/null
printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$4" >"$dir/ext"
openssl x509 -req -in "$dir/csr" -CA "$1" -CAkey "$2" -days "$3" -extfile "$dir/ext" -out "$dir/crt" 2>/dev/null
cat <<SECRET
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: $6, namespace: $5}
data:
  tls.crt: $(base64 -w0 <"$dir/crt")
  tls.key: $(base64 -w0 <"$dir/key")
SECRET
