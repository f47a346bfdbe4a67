-- Of wanted runs that the lake has: how many are of each batch and each status that is not final.
SELECT
    kind,
    batch_id,
    CASE WHEN status NOT IN (SELECT unnest($finished)) THEN status END AS status,
    count(*) AS wanted
FROM runs
WHERE run_id IN (SELECT unnest($run_ids)) AND kind IN (SELECT unnest($kinds))
GROUP BY ALL
