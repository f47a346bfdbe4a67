-- Ended and failed runs of two windows by the values of each dimension that may carry a change: `value` null where a run
-- has none. `$turn` is the first day of the later window.
WITH marked AS (
    SELECT
        created_on >= CAST($turn AS DATE) AS is_after,
        status = 'FAILED' AS is_failed,
        [
            {dimension: 'all', value: 'all'},
            {dimension: 'kind', value: kind},
            {dimension: 'processor', value: coalesce(processor_name, processor_id)},
            {dimension: 'version', value: coalesce(processor_name, processor_id) || ' ' || processor_version},
            {dimension: 'file_type', value: file_type},
            {dimension: 'reason', value: CASE WHEN status = 'FAILED' THEN coalesce(failure_reason, '(none given)') END}
        ] AS places
    FROM asked
    WHERE status IN ('PROCESSED', 'FAILED')
),
placed AS (
    SELECT
        is_after,
        is_failed,
        unnest(places) AS place
    FROM marked
)
SELECT
    place.dimension AS dimension,
    place.value AS value,
    count(*) FILTER (WHERE is_failed AND NOT is_after) AS failed_before,
    count(*) FILTER (WHERE NOT is_after) AS ended_before,
    count(*) FILTER (WHERE is_failed AND is_after) AS failed_after,
    count(*) FILTER (WHERE is_after) AS ended_after
FROM placed
GROUP BY ALL
ORDER BY dimension, value
