-- How many runs the lake has of each batch, and of each status that is not final: how long such a list will be.
SELECT
    kind,
    'batchId' AS filter,
    batch_id AS value,
    count(*) AS runs
FROM runs
WHERE batch_id IS NOT NULL AND deleted_at IS NULL
GROUP BY kind, batch_id
UNION ALL
SELECT
    kind,
    'status',
    status,
    count(*)
FROM runs
WHERE status NOT IN (SELECT unnest($finished)) AND deleted_at IS NULL
GROUP BY kind, status
