module lab/kr

go 1.26.0

replace github.com/cloudnativelabs/kube-router/v2 => github.com/k3s-io/kube-router/v2 v2.2.1

require github.com/cloudnativelabs/kube-router/v2 v2.0.0-00010101000000-000000000000 // indirect
