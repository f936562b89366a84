{{/* A quantity as Kubernetes writes it, by the canonical form of resource.Quantity: 500m for 0.5, 2Gi for 2048Mi.
     KubeRay's operator writes whole objects; docs/adr/0012 tells what another form would cost. */}}
{{- define "eagleray.quantity" -}}
{{- $text := ternary . (int64 . | toString) (kindIs "string" .) -}}
{{- if not (regexMatch "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?$" $text) -}}
{{- fail (printf "a quantity must be a number with a suffix of Kubernetes, such as 500m, 1.5Gi or 1e3, but got %q" $text) -}}
{{- end -}}
{{- $number := regexFind "[0-9.]+" $text -}}
{{- $parts := splitList "." (printf "%s." $number) -}}
{{- $fraction := trimSuffix (regexFind "0*$" (index $parts 1)) (index $parts 1) -}}
{{- $suffix := trimPrefix "+" $text | trimPrefix $number -}}
{{- $form := ternary "eagleray.binaryQuantity" "eagleray.decimalQuantity" (hasSuffix "i" $suffix) -}}
{{- include $form (dict "whole" (regexFind "[1-9].*" (index $parts 0)) "fraction" $fraction "suffix" $suffix) -}}
{{- end -}}

{{/* Digits and a power of ten, on text: exact at any size. whole: without leading zeros; fraction: without trailing ones; suffix. */}}
{{- define "eagleray.decimalQuantity" -}}
{{- $suffixes := list "n" "u" "m" "" "k" "M" "G" "T" "P" -}}
{{- $scientific := regexMatch "^[eE]." .suffix -}}
{{- $exponent := index (dict "n" -9 "u" -6 "m" -3 "" 0 "k" 3 "M" 6 "G" 9 "T" 12 "P" 15 "E" 18) .suffix -}}
{{- if $scientific }}{{ $exponent = regexReplaceAll "^[eE][+]?(-?)0*([0-9]+)$" .suffix "${1}${2}" | int }}{{ end -}}
{{- $digits := regexFind "[1-9].*" (printf "%s%s" .whole .fraction) -}}
{{- $zeros := regexFind "0*$" $digits -}}
{{- $exponent = sub (add $exponent (len $zeros)) (len .fraction) -}}
{{- $pad := mod (add 3 (mod $exponent 3)) 3 | int -}}
{{- $exponent = sub $exponent $pad -}}
{{- $digits = printf "%s%s" (trimSuffix $zeros $digits) (repeat $pad "0") -}}
{{- if not (trimAll "0" $digits) -}}
0
{{- else if or (lt $exponent -9) (gt (add (len $digits) $exponent) 18) -}}
{{- fail (printf "a quantity must be a multiple of 1n and less than 1E, but got %s.%s%s" (default "0" .whole) (default "0" .fraction) .suffix) -}}
{{- else if $scientific -}}
{{ $digits }}{{ if $exponent }}e{{ $exponent }}{{ end }}
{{- else -}}
{{ $digits }}{{ index $suffixes (add 3 (div $exponent 3) | int) }}
{{- end -}}
{{- end -}}

{{/* Powers of 1024, in whole units; what is less than 1024, or no whole number of them, is written as a decimal. */}}
{{- define "eagleray.binaryQuantity" -}}
{{- $suffixes := list "" "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" -}}
{{- $power := index (dict "Ki" 1 "Mi" 2 "Gi" 3 "Ti" 4 "Pi" 5 "Ei" 6) .suffix -}}
{{- if or (gt (add (len .whole) (mul 3 $power)) 18) (gt (len .fraction) 9) -}}
{{- fail (printf "a quantity must be less than 1E, with at most 9 decimals, but got %s.%s%s" (default "0" .whole) (default "0" .fraction) .suffix) -}}
{{- end -}}
{{- $whole := int64 (default "0" .whole) -}}
{{- $unit := int64 (printf "1%s" (repeat (len .fraction) "0")) -}}
{{- $fraction := regexFind "[1-9].*" .fraction | default "0" | int64 -}}
{{- range until $power -}}
{{- if $fraction -}}
{{- $product := mul $fraction 1024 -}}
{{- $whole = add (mul $whole 1024) (div $product $unit) -}}
{{- $fraction = mod $product $unit -}}
{{- $power = sub $power 1 -}}
{{- end -}}
{{- end -}}
{{- range until 6 -}}
{{- if and $whole (not $fraction) (lt (int $power) 6) (eq (mod $whole 1024) 0) -}}
{{- $whole = div $whole 1024 -}}
{{- $power = add $power 1 -}}
{{- end -}}
{{- end -}}
{{- if or $fraction (not $whole) (and (not $power) (lt $whole 1024)) -}}
{{- $decimals := regexReplaceAll "0*$" (printf "%0*d" (len .fraction) $fraction) "" -}}
{{- include "eagleray.decimalQuantity" (dict "whole" (toString $whole | trimPrefix "0") "fraction" $decimals "suffix" "") -}}
{{- else -}}
{{ $whole }}{{ index $suffixes (int $power) }}
{{- end -}}
{{- end -}}
